"""The as-of offline store: point-in-time joins over Parquet files, a plug-in that Feast loads by class path.

Here: the store, its queries, and the files it reads and writes. Importing any of it imports Feast.
Not here: anything of this platform's tables; the store serves every Feast repository.
"""
