"""What tests of vectorlake and of its plug-ins share: faults, clocks, servers. Never used in production."""
