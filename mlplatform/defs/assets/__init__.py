"""Asset factories: one module per stage, one group of assets per dataset and per experiment."""
