"""Raw data: sources, validation with quarantine, the raw table, and the simulated fleet."""
