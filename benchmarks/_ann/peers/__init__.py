"""Contestants by name. Their libraries are loaded only in the process that runs them."""

from __future__ import annotations

import importlib

from _ann.protocol import Contestant, Skip

CONTESTANTS = {
    "vectorlake-exact": "ours:Exact",
    "vectorlake-ivf": "ours:Ivf",
    "vectorlake-ivf-4bit": "ours:IvfFourBits",
    "vectorlake-graph": "ours:Graph",
    "faiss-flat": "faiss_peer:Flat",
    "faiss-ivf": "faiss_peer:Ivf",
    "faiss-fastscan": "faiss_peer:FastScan",
    "faiss-hnsw": "faiss_peer:Hnsw",
    "usearch": "usearch_peer:Usearch",
    "hnswlib": "hnswlib_peer:Hnswlib",
    "rabitqlib-ivf": "rabitq_peer:Ivf",
    "symphonyqg": "rabitq_peer:Symphony",
    "turbovec-2": "turbovec_peer:TwoBits",
    "turbovec-4": "turbovec_peer:FourBits",
    "lance-pq": "lance_peer:Pq",
    "lance-rq": "lance_peer:Rq",
    "lance-hnsw": "lance_peer:HnswSq",
    "lancedb": "lancedb_peer:LanceDb",
    "milvus-lite": "milvus_peer:MilvusLite",
    "duckdb-vss": "vss_peer:Vss",
}
OURS = tuple(name for name in CONTESTANTS if name.startswith("vectorlake"))


def contestant(name: str) -> Contestant:
    """A new contestant.

    Raises:
        Skip: its library is not installed; says which and how to get it.
    """
    module, _, attribute = CONTESTANTS[name].partition(":")
    try:
        found: Contestant = getattr(importlib.import_module(f"_ann.peers.{module}"), attribute)()
    except ImportError as e:
        raise Skip(f"{e.name or e} is not installed (pip install 'vectorlake[bench,peers]')") from e
    return found
