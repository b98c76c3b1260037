"""`pointrend cite`."""

from __future__ import annotations

from dataclasses import dataclass

BIBTEX = """\
@inproceedings{kirillov2020pointrend,
  title     = {{PointRend}: Image Segmentation as Rendering},
  author    = {Alexander Kirillov and Yuxin Wu and Kaiming He and Ross Girshick},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {9799--9808},
  year      = {2020}
}

@article{cheng2021pointly,
  title   = {Pointly-Supervised Instance Segmentation},
  author  = {Bowen Cheng and Omkar Parkhi and Alexander Kirillov},
  journal = {arXiv:2104.06404},
  year    = {2021}
}
"""


@dataclass(frozen=True)
class Cite:
    """Print the BibTeX entries of PointRend, and of Implicit PointRend for who uses that."""

    def run(self) -> int:
        """Print them."""
        print(BIBTEX, end="")
        return 0
