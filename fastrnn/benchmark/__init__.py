"""The benchmark: fastrnn compared with the installed engines and with the machine's limits.

``fastrnn bench`` runs it. Nothing else in the package imports it. The other engines (torch, onnxruntime,
openvino, tensorflow) and matplotlib are imported only if they are used.
"""
