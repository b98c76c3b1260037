from __future__ import annotations

import multiprocessing
import os
import signal
from itertools import islice

import pytest
import torch

from pointrend.structures import Dataset
from pointrend.training.data_loading import TooManyBroken, TrainingLoader, wide_images
from pointrend.training.loop import train
from pointrend.training.recipe import Recipe


def seen(loader: TrainingLoader, count: int, **where: int) -> list[tuple[list[int], torch.Tensor]]:
    batches = islice(loader.batches(**where), count)
    return [([s.image_id for s in samples], torch.stack(images)) for images, _, samples in batches]


def equal(ours: list, theirs: list) -> bool:
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in zip(ours, theirs, strict=True))


def test_workers_change_nothing(greys) -> None:
    recipe = Recipe(batch_size=3)
    torch.manual_seed(1)
    alone = seen(TrainingLoader(greys(), recipe), 8)
    torch.manual_seed(2)
    assert equal(alone, seen(TrainingLoader(greys(), recipe, workers=2), 8))


def test_the_random_changes_differ_from_epoch_to_epoch(greys) -> None:
    (_, first), (_, second) = seen(TrainingLoader(greys(1), Recipe(batch_size=1)), 2)
    assert not torch.equal(first, second)


def test_reading_leaves_the_random_numbers_of_the_training_alone(greys) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    batches = TrainingLoader(greys(), Recipe(batch_size=2)).batches()
    torch.manual_seed(5)
    next(batches)
    assert torch.equal(torch.rand(3), expected)


def test_batches_from_an_update_on_are_those_that_would_have_come(greys) -> None:
    loader = TrainingLoader(greys(), Recipe(batch_size=4, accumulate=2))
    assert equal(seen(loader, 12)[6:], seen(loader, 6, first_update=3))


def test_two_processes_see_what_one_sees(greys) -> None:
    (ids, images), *_ = seen(TrainingLoader(greys(), Recipe(batch_size=4)), 1)
    ranks = [seen(TrainingLoader(greys(), Recipe(batch_size=4)), 1, rank=r, processes=2)[0] for r in range(2)]
    assert ranks[0][0] + ranks[1][0] == ids
    assert torch.equal(torch.cat([images for _, images in ranks]), images)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_left_out_counted_and_named(greys, workers: int) -> None:
    loader = TrainingLoader(greys(6, broken=(2,)), Recipe(batch_size=3), workers=workers)
    with pytest.warns(UserWarning, match=r"left out an image.*image2\.png") as caught:
        found = seen(loader, 10)
    assert len(caught) == 1
    assert loader.broken == {2: "image2.png: not a readable image"}
    assert all(len(ids) == 3 and 2 not in ids for ids, _ in found)


@pytest.mark.filterwarnings("ignore:left out an image")
def test_the_image_in_place_of_a_broken_one_is_always_the_same(greys) -> None:
    recipe = Recipe(batch_size=3)
    found = seen(TrainingLoader(greys(6, broken=(2, 3)), recipe), 8)
    assert equal(found, seen(TrainingLoader(greys(6, broken=(2, 3)), recipe, workers=2), 8))


@pytest.mark.filterwarnings("ignore:left out an image")
def test_too_many_broken_images_stop_the_training_and_are_named(greys) -> None:
    loader = TrainingLoader(greys(20, broken=(1, 5, 6)), Recipe(batch_size=4), tolerate=2)
    with pytest.raises(TooManyBroken, match=r"3 of 20 images.*2 tolerated") as error:
        seen(loader, 20)
    assert all(f"image{number}.png" in str(error.value) for number in (1, 5, 6))


def test_a_data_set_that_cannot_be_read_at_all_says_so(greys) -> None:
    loader = TrainingLoader(greys(4, broken=(0, 1, 2, 3)), Recipe(batch_size=2))
    with pytest.raises(TooManyBroken, match="10 images in a row"):
        seen(loader, 1)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_workers_go_on_when_the_whole_job_gets_a_signal(greys) -> None:
    recipe = Recipe(batch_size=3)
    batches = TrainingLoader(greys(), recipe, workers=1).batches()
    next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    for _ in range(10):  # more than what was read ahead
        assert len(next(batches)[0]) == 3


def test_a_training_that_fails_leaves_no_worker_behind(fit, greys) -> None:
    model = fit()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("lost the device")

    model.loss = fail
    recipe = Recipe(steps=2, batch_size=2)
    with pytest.raises(RuntimeError, match="lost the device") as error:
        train(model, TrainingLoader(greys(), recipe, workers=1), recipe, device="cpu")
    # They ignore signals, so Python would wait for them at exit, as long as the error keeps the loop's variables.
    assert error.tb is not None
    assert multiprocessing.active_children() == []


def test_an_empty_data_set_is_refused(greys) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        TrainingLoader(greys(0), Recipe(batch_size=2)).batches()


def test_shapes_of_images_are_known_from_a_coco_file_only(greys) -> None:
    class Coco(Dataset):
        class_names = ("only",)
        image_sizes = ((2, 1), (1, 2))

    assert wide_images(Coco()) == [False, True]
    assert wide_images(greys()) is None
    assert TrainingLoader(greys(), Recipe(group_by_aspect=True)).wide is None
