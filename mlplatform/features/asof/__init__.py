"""The as-of offline store: point-in-time joins over Parquet files, as a plug-in that Feast loads by class path."""
