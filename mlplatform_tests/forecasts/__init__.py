"""Tests of the room `mlplatform.forecasts`; equality with the servers is tested beside these."""
