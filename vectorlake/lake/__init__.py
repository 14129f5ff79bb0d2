"""Many tables under one root: namespaces, creation, listing, dropping."""
