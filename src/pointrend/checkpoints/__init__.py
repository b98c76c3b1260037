"""Reading and writing weights: our self-describing files, and Detectron2's and MMSegmentation's by tables of
names.
"""
