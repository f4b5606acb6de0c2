"""Whole models: a recurrent layer and the plain layers around it, run as one chain."""
