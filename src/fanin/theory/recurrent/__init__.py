"""Recurrent cells in the limit of many units: each unit alone, driven by Gaussian processes over time."""
