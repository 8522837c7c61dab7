"""Features on Feast: the Parquet tables behind it, the as-of offline store, online windows, and retrieval.

`table` writes the files, `definitions` describes them to Feast, `store` opens and applies the repository, `online`
fills and reads the online store, and `retrieval` is what training and serving ask. `asof_store` and `registry_store`
are plug-ins that Feast loads by class path; they alone import Feast when they are imported.
"""
