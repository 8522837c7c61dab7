"""The command `mlplatform`.

Here: commands and their options (`commands`), and how results look on a terminal (`show`).
Not here: what the commands do (`mlplatform.api`); the servers and Dagster, which are started as programs of their own.
"""
