from benchmarks.digits import Options, fit_arguments, markdown
from benchmarks.tables import cell, score
from train.cli import parse_fit


def evaluation(accuracy, iou=None):
    scores = {"accuracy": accuracy}
    if iou is not None:
        scores |= {
            "attention2/iou": iou,
            "attention2/mask_iou": 0.0,
            "attention2/corloc": iou,
            "attention2/center_error": iou,
            "attention2/mass_on_object": iou,
        }
    return {"test": scores, "train": {"accuracy": 1.0}}


def test_options_of_every_layer_are_options_of_fit():
    for layer in ("none", "rectangular", "positionwise-trunk"):
        config = parse_fit(fit_arguments(Options(epochs=2, stage=1), layer, 3))
        assert config.model.attention == layer
        assert config.model.attention_stages == (1,)
        assert config.seed == 3
        # The loss is for rectangles; the moved images are for all.
        assert (config.equivariance.weight > 0) == (layer == "rectangular")
        assert config.equivariance.moves_images


def test_score_of_the_layer_is_found_whatever_its_name():
    assert score(evaluation(0.9, iou=0.5), "test/L/iou") == 0.5
    assert score(evaluation(0.9), "test/L/iou") is None
    assert score(evaluation(0.9), "test/accuracy") == 0.9


def test_cells_show_mean_and_student_interval():
    # Student's t for 2 degrees of freedom: 4.303 * 0.1 / sqrt(3) = 0.248.
    assert cell([0.4, 0.5, 0.6], 3) == "0.500 ± 0.248"
    assert cell([0.5], 2) == "0.50"
    assert cell([0.5, None], 2) == ""


def test_table_pairs_the_seeds():
    runs = {
        "none": [evaluation(0.90), evaluation(0.92)],
        "rectangular": [evaluation(0.91, 0.5), evaluation(0.93, 0.6)],
    }
    text = markdown(runs, "command")
    assert "- rectangular: +0.0100 ± 0.0000; above on 2 of 2" in text
    assert "| rectangular, seed 1 | 0.9300 | 1.0000 | 0.600 |" in text
