"""Importers of other frameworks' weights, one module each; each returns a validated `fastrnn.spec.LayerSpec`."""
