"""The Parquet tables behind the feature store: the feature table on its grid, and windows cut from it."""
