"""COCO's 80 object categories: ids, names, and the WordNet synset of each, by which LVIS knows them.

Synsets as LVIS's authors list them (lvis-dataset/lvis-api, coco_to_synset.json); `oven.n.01` and `frank.n.02` are no
categories of LVIS v0.5. COCO-Stuff (Caesar et al., CVPR 2018) adds 91 kinds of stuff.
"""

from __future__ import annotations

from typing import NamedTuple


class Category(NamedTuple):
    """A COCO category."""

    id: int
    """1..90, with gaps."""
    name: str
    synset: str


CATEGORIES = (
    Category(1, "person", "person.n.01"),
    Category(2, "bicycle", "bicycle.n.01"),
    Category(3, "car", "car.n.01"),
    Category(4, "motorcycle", "motorcycle.n.01"),
    Category(5, "airplane", "airplane.n.01"),
    Category(6, "bus", "bus.n.01"),
    Category(7, "train", "train.n.01"),
    Category(8, "truck", "truck.n.01"),
    Category(9, "boat", "boat.n.01"),
    Category(10, "traffic light", "traffic_light.n.01"),
    Category(11, "fire hydrant", "fireplug.n.01"),
    Category(13, "stop sign", "stop_sign.n.01"),
    Category(14, "parking meter", "parking_meter.n.01"),
    Category(15, "bench", "bench.n.01"),
    Category(16, "bird", "bird.n.01"),
    Category(17, "cat", "cat.n.01"),
    Category(18, "dog", "dog.n.01"),
    Category(19, "horse", "horse.n.01"),
    Category(20, "sheep", "sheep.n.01"),
    Category(21, "cow", "beef.n.01"),
    Category(22, "elephant", "elephant.n.01"),
    Category(23, "bear", "bear.n.01"),
    Category(24, "zebra", "zebra.n.01"),
    Category(25, "giraffe", "giraffe.n.01"),
    Category(27, "backpack", "backpack.n.01"),
    Category(28, "umbrella", "umbrella.n.01"),
    Category(31, "handbag", "bag.n.04"),
    Category(32, "tie", "necktie.n.01"),
    Category(33, "suitcase", "bag.n.06"),
    Category(34, "frisbee", "frisbee.n.01"),
    Category(35, "skis", "ski.n.01"),
    Category(36, "snowboard", "snowboard.n.01"),
    Category(37, "sports ball", "ball.n.06"),
    Category(38, "kite", "kite.n.03"),
    Category(39, "baseball bat", "baseball_bat.n.01"),
    Category(40, "baseball glove", "baseball_glove.n.01"),
    Category(41, "skateboard", "skateboard.n.01"),
    Category(42, "surfboard", "surfboard.n.01"),
    Category(43, "tennis racket", "tennis_racket.n.01"),
    Category(44, "bottle", "bottle.n.01"),
    Category(46, "wine glass", "wineglass.n.01"),
    Category(47, "cup", "cup.n.01"),
    Category(48, "fork", "fork.n.01"),
    Category(49, "knife", "knife.n.01"),
    Category(50, "spoon", "spoon.n.01"),
    Category(51, "bowl", "bowl.n.03"),
    Category(52, "banana", "banana.n.02"),
    Category(53, "apple", "apple.n.01"),
    Category(54, "sandwich", "sandwich.n.01"),
    Category(55, "orange", "orange.n.01"),
    Category(56, "broccoli", "broccoli.n.01"),
    Category(57, "carrot", "carrot.n.01"),
    Category(58, "hot dog", "frank.n.02"),
    Category(59, "pizza", "pizza.n.01"),
    Category(60, "donut", "doughnut.n.02"),
    Category(61, "cake", "cake.n.03"),
    Category(62, "chair", "chair.n.01"),
    Category(63, "couch", "sofa.n.01"),
    Category(64, "potted plant", "pot.n.04"),
    Category(65, "bed", "bed.n.01"),
    Category(67, "dining table", "dining_table.n.01"),
    Category(70, "toilet", "toilet.n.02"),
    Category(72, "tv", "television_receiver.n.01"),
    Category(73, "laptop", "laptop.n.01"),
    Category(74, "mouse", "mouse.n.04"),
    Category(75, "remote", "remote_control.n.01"),
    Category(76, "keyboard", "computer_keyboard.n.01"),
    Category(77, "cell phone", "cellular_telephone.n.01"),
    Category(78, "microwave", "microwave.n.02"),
    Category(79, "oven", "oven.n.01"),
    Category(80, "toaster", "toaster.n.02"),
    Category(81, "sink", "sink.n.01"),
    Category(82, "refrigerator", "electric_refrigerator.n.01"),
    Category(84, "book", "book.n.01"),
    Category(85, "clock", "clock.n.01"),
    Category(86, "vase", "vase.n.01"),
    Category(87, "scissors", "scissors.n.01"),
    Category(88, "teddy bear", "teddy.n.01"),
    Category(89, "hair drier", "hand_blower.n.01"),
    Category(90, "toothbrush", "toothbrush.n.01"),
)
STUFF = (
    *("banner", "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard"),
    *("carpet", "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard"),
    *("curtain", "desk-stuff", "dirt", "door-stuff", "fence", "floor-marble", "floor-other", "floor-stone"),
    *("floor-tile", "floor-wood", "flower", "fog", "food-other", "fruit", "furniture-other", "grass"),
    *("gravel", "ground-other", "hill", "house", "leaves", "light", "mat", "metal", "mirror-stuff", "moss"),
    *("mountain", "mud", "napkin", "net", "paper", "pavement", "pillow", "plant-other", "plastic"),
    *("platform", "playingfield", "railing", "railroad", "river", "road", "rock", "roof", "rug", "salad"),
    *("sand", "sea", "shelf", "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw"),
    *("structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable", "wall-brick"),
    *("wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile", "wall-wood", "water-other"),
    *("waterdrops", "window-blind", "window-other", "wood"),
)
"""COCO-Stuff's ids 92..182."""
STUFF_MAP_CLASSES = (*((c.id - 1, c.name) for c in CATEGORIES), *enumerate(STUFF, start=91))
"""(number in the `stuffthingmaps` label maps, name) of the 171 classes; 255 there is unlabelled."""
