"""Readers of other frameworks' weights, one a module; each ends in a validated `fastrnn.spec.LayerSpec`."""
