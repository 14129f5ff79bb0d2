"""Pure decisions: schema evolution, scan planning and pruning, how a change meets a newer version."""
