"""Labels go by the name of their class."""

import dataclasses
import pickle
import unicodedata

import numpy as np
import pytest

from train.data.facts import Facts
from train.data.labels import differing_names, with_facts
from train.data.sources.base import DatasetInfo, Example, Objects
from train.data.sources.memory import MemorySource
from train.errors import UserError

RUN = ("ant", "bee", "cat")


def with_classes(source, class_names, *, whole):
    facts = Facts((1, 1, 3), class_names, num_examples=3, truth="none")
    return with_facts(source, facts, whole=whole)


@dataclasses.dataclass(frozen=True)
class Listed:
    info: DatasetInfo
    names: tuple[str, ...]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        label = self.info.class_names.index(self.names[index])
        return Example(np.zeros((1, 1, 3), np.uint8), label)


def source_of(class_names, kind):
    info = DatasetInfo("set", "test", class_names, len(class_names), "none", 3)
    source = Listed(info, class_names)
    if kind is MemorySource:
        return MemorySource(info, (*source, "broken.png is not an image"))
    return source


@pytest.mark.parametrize("kind", [Listed, MemorySource])
@pytest.mark.parametrize(
    "class_names", [("cat", "bee", "ant"), ("bee", "cat", "ant"), ("cat", "ant")]
)
def test_every_image_keeps_the_name_of_its_class(kind, class_names):
    source = source_of(class_names, kind)
    found = with_classes(source, RUN, whole=False)
    assert found.info.class_names == RUN
    assert isinstance(found, MemorySource) == (kind is MemorySource)
    for index, name in enumerate(class_names):
        assert RUN[found[index].label] == name
    again = pickle.loads(pickle.dumps(found))
    assert len(again) == len(source)


def test_a_source_in_the_runs_order_is_left_as_it_is():
    source = source_of(RUN, Listed)
    assert with_classes(source, RUN, whole=True) is source


@pytest.mark.parametrize(
    ("class_names", "whole", "named"),
    [
        (("ant", "bee", "dog"), False, r"\+ dog - cat"),
        (("ant", "bee", "cat", "dog"), False, r"\+ dog"),
        (("ant", "bee"), True, "- cat"),
        (("Ant", "bee", "cat"), False, r"\+ Ant - ant"),
    ],
)
def test_other_names_are_refused_with_what_differs(class_names, whole, named):
    source = source_of(class_names, Listed)
    with pytest.raises(UserError, match=f"other classes than the run: {named} "):
        with_classes(source, RUN, whole=whole)


def test_an_accent_may_be_spelt_in_two_ways():
    names = tuple(unicodedata.normalize("NFD", each) for each in ("café", "été"))
    run = tuple(unicodedata.normalize("NFC", each) for each in ("été", "café"))
    assert names[0] != run[1]
    assert not differing_names(run, names)
    found = with_classes(source_of(names, Listed), run, whole=True)
    assert [found[index].label for index in range(2)] == [1, 0]


def facts_of(categories):
    return Facts((1, 1, 3), (), 2, "none", categories=categories)


@dataclasses.dataclass(frozen=True)
class WithObjects:
    """Two images: one without objects, one with each category in turn."""

    info: DatasetInfo

    def __len__(self):
        return 2

    def __getitem__(self, index):
        count = index * len(self.info.categories)
        rectangles, labels = np.ones((count, 5)), np.arange(count)
        objects = Objects(rectangles, labels, np.zeros(count, bool))
        return Example(np.zeros((1, 1, 3), np.uint8), -1, objects=objects)


@pytest.mark.parametrize("kind", [WithObjects, MemorySource])
def test_every_object_keeps_the_name_of_its_category(kind):
    info = DatasetInfo("set", "test", (), 2, "none", 3, categories=("cat", "ant"))
    source = WithObjects(info)
    if kind is MemorySource:
        examples = (source[0], source[1], "broken.png is not an image")
        source = MemorySource(info, examples)
    found = with_facts(source, facts_of(RUN), whole=False)
    assert found.info.categories == RUN
    assert isinstance(found, MemorySource) == (kind is MemorySource)
    first, second = found[0].objects, found[1].objects
    assert first is not None
    assert second is not None
    assert (len(first), second.labels.tolist()) == (0, [2, 0])
    assert second.labels.dtype == np.int64
    assert found[1].label == -1
    assert with_facts(source, facts_of(("cat", "ant")), whole=True) is source
    with pytest.raises(UserError, match=r"other categories than the run: - bee"):
        with_facts(source, facts_of(RUN), whole=True)
    with pytest.raises(UserError, match=r"other categories than the run: \+ cat - bee"):
        with_facts(source, facts_of(("ant", "bee")), whole=False)


def test_sets_of_objects_and_of_classes_are_told_apart():
    info = DatasetInfo("set", "test", (), 2, "none", 3, categories=("cat", "ant"))
    with pytest.raises(UserError, match="other classes than the run: - ant - bee - ca"):
        with_classes(WithObjects(info), RUN, whole=False)
    with pytest.raises(UserError, match=r"other classes than the run: \+ ant"):
        with_facts(source_of(RUN, Listed), facts_of(("cat",)), whole=False)
