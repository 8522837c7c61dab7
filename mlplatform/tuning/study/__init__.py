"""One study: opened, kept in its journal, resumed after a kill."""
