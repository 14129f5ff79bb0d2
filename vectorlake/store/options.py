"""Storage options: which client takes which, what an unknown one may have meant, timeouts and retries."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from obstore.exceptions import UnknownConfigurationKeyError
from obstore.store import AzureStore, GCSStore, S3Store

from vectorlake.errors import InvalidInputError
from vectorlake.store.location import Kind

RETRIES = "client_max_retries"
RETRY_SECONDS = "client_retry_timeout"
"""The two options that are ours and Lance's alike: retries of a request, and seconds after which none is
tried."""

# Bounds what a wrong endpoint costs, and leaves a store that asks to slow down room to recover.
_DEFAULT_RETRIES = 10
_DEFAULT_RETRY_SECONDS = 20
_DEFAULT_CLIENT = {"connect_timeout": "2s", "read_timeout": "20s", "timeout": "300s"}

_CLIENT = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_url",
    "proxy_ca_certificate",
    "proxy_excludes",
    "root_certificate",
    "randomize_addresses",
    "read_timeout",
    "timeout",
    "user_agent",
)

# Only for suggestions: what counts is whether the client takes a name, and it takes more aliases than these.
_KNOWN: Mapping[Kind, tuple[str, ...]] = {
    Kind.S3: (
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "aws_region",
        "aws_endpoint",
        "aws_endpoint_url",
        "aws_default_region",
        "aws_allow_http",
        "aws_skip_signature",
        "aws_virtual_hosted_style_request",
        "aws_unsigned_payload",
        "aws_server_side_encryption",
        "aws_sse_kms_key_id",
        "aws_request_payer",
        "aws_role_arn",
        "aws_s3_express",
        "aws_conditional_put",
        "aws_disable_tagging",
        "aws_disable_bulk_delete",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "region",
        "endpoint",
        "skip_signature",
        "virtual_hosted_style_request",
    ),
    Kind.GCS: (
        "google_service_account",
        "google_service_account_key",
        "google_application_credentials",
        "google_base_url",
        "google_bearer_token",
        "google_skip_signature",
        "service_account",
        "service_account_key",
        "application_credentials",
        "base_url",
        "bearer_token",
        "skip_signature",
    ),
    Kind.AZURE: (
        "azure_storage_account_name",
        "azure_storage_account_key",
        "azure_storage_sas_key",
        "azure_storage_token",
        "azure_storage_client_id",
        "azure_storage_client_secret",
        "azure_storage_tenant_id",
        "azure_storage_use_emulator",
        "azure_endpoint",
        "account_name",
        "account_key",
        "sas_key",
        "client_id",
        "client_secret",
        "tenant_id",
        "use_emulator",
        "endpoint",
        "skip_signature",
    ),
}

_ENVIRONMENT: Mapping[Kind, tuple[str, ...]] = {
    Kind.S3: (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ALLOW_HTTP",
        "AWS_SKIP_SIGNATURE",
    ),
    Kind.GCS: ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_BASE_URL"),
    Kind.AZURE: (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_TOKEN",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID",
        "AZURE_ENDPOINT",
    ),
}

_SECRET = re.compile(r"secret|token|password|account_key|sas|service_account_key|access_key$", re.IGNORECASE)


@functools.cache
def accepts(kind: Kind, name: str) -> bool:
    """Whether the client of `kind` knows an option of that name (it is asked, so its aliases all count)."""
    if name in (RETRIES, RETRY_SECONDS):
        return True
    try:
        _client(kind, "bucket", {name: "0"}, {})
    except UnknownConfigurationKeyError:
        return False
    except Exception:  # noqa: BLE001 - a value that it refuses belongs to a name that it knows
        return True
    return True


def check_options(kind: Kind, options: Mapping[str, str]) -> None:
    """Raise `InvalidInputError` naming an option that the client of `kind` does not know, and close matches.

    Local and memory stores take the options of every client, since foreign files may lie elsewhere.
    """
    kinds = [kind] if kind in _KNOWN else list(_KNOWN)
    for name, value in options.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidInputError(
                f"storage option {name!r} must be a string with a string value, not {type(value).__name__}: "
                f'write e.g. {{"allow_http": "true"}}'
            )
        if any(accepts(each, name) for each in kinds):
            continue
        known = sorted({n for each in kinds for n in (*_KNOWN[each], *_CLIENT, RETRIES, RETRY_SECONDS)})
        close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
        meant = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"
        where = f" for {kind.value}" if kind in _KNOWN else ""
        raise InvalidInputError(f"unknown storage option {name!r}{where}: {meant}")


def options_for(kind: Kind, options: Mapping[str, str]) -> dict[str, str]:
    """The options that the client of `kind` knows, of options that may serve several."""
    if kind not in _KNOWN:
        return dict(options)
    return {name: value for name, value in options.items() if accepts(kind, name)}


def environment_of(kind: Kind) -> tuple[str | None, ...]:
    """What the environment says of keys and endpoints for `kind`, so that a change makes a new client."""
    return tuple(map(os.environ.get, _ENVIRONMENT.get(kind, ())))


def redacted(options: Mapping[str, str]) -> dict[str, str]:
    """The options with their secrets blanked, for messages."""
    return {name: "***" if _SECRET.search(name) else value for name, value in options.items()}


def remote_client(kind: Kind, name: str, options: Mapping[str, str], *, account: str | None) -> Any:
    """The obstore client for one bucket or container.

    Raises `InvalidInputError` on an unknown option or one whose value cannot be read.
    """
    check_options(kind, options)
    config = {key: value for key, value in options.items() if key not in (RETRIES, RETRY_SECONDS)}
    lower = {key.lower() for key in config}
    config.update({key: value for key, value in _DEFAULT_CLIENT.items() if key not in lower})
    if account and not lower & {"account_name", "azure_storage_account_name", "azure_account_name"}:
        config["azure_storage_account_name"] = account
    retry = {
        "max_retries": _whole(options, RETRIES, _DEFAULT_RETRIES),
        "retry_timeout": timedelta(seconds=_whole(options, RETRY_SECONDS, _DEFAULT_RETRY_SECONDS)),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }
    try:
        return _client(kind, name, config, {"retry_config": retry})
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(
            f"{kind.value} refused the storage options {redacted(options)}: {reason}; correct the value named"
        ) from error


def _whole(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not text.isdecimal():
        raise InvalidInputError(f"storage option {name}={text!r} must be a whole number")
    return int(text)


def _client(kind: Kind, name: str, config: Mapping[str, str], more: Mapping[str, Any]) -> Any:
    store: Any = {Kind.S3: S3Store, Kind.GCS: GCSStore, Kind.AZURE: AzureStore}[kind]
    return store(name, config=dict(config), **more)
