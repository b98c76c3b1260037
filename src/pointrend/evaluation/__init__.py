"""Scores: COCO / LVIS AP and Boundary AP of instances, mIoU and boundary scores of label maps, Cityscapes AP.

Evaluators are small objects: `update` with one image, `compute` named numbers, `merge` with another shard.
"""
