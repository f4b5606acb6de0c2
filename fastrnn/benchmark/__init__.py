"""The benchmark: fastrnn beside the engines that are installed, and beside the machine's limits.

``fastrnn bench`` runs it. Nothing else in the package needs this part, and this part needs its engines
(torch, onnxruntime, openvino, tensorflow) and matplotlib only where they are asked for.
"""
