"""Tissue maps of brains: their classes, drawn anatomies, and a segmenter of T1w scans."""
