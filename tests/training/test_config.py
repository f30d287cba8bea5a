import pytest

from training.config import ConfigError, FitConfig, config_of, load_config, preset_names


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_valid(preset):
    assert load_config(preset).images > 0


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigError, match="learning_rat"):
        load_config("smoke", ["learning_rat = 1e-3"])


def test_a_wrong_type_is_named():
    with pytest.raises(ConfigError, match="batch: int expected, str given"):
        load_config("smoke", ['batch = "many"'])


def test_an_override_wins_over_the_preset():
    assert load_config("smoke", ["batch=3", "learning_rate=1"]).batch == 3


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="lifespan-64"):
        load_config("no-such-preset")


def test_a_configuration_survives_being_written_and_read():
    config = load_config("lifespan-256")
    assert config_of(config.to_dict()) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolution", 48),
        ("batch", 0),
        ("r1_interval", 0),
        ("consistency_interval", 0),
        ("neutral", 1.0),
        ("held_out", 1),
        ("clusters", ((0, 9), (5, 20))),
        ("clusters", (0, 9)),
        ("clusters", ((0, 5, 9), (10, 20, 30))),
        ("groups", ("female", "female")),
        ("groups", ("female", "neutral")),
        ("precision", "float8"),
        ("decoder_start", "zero"),
        ("generator_betas", (0.5, 1.0)),
        ("discriminator_betas", (0.9,)),
        ("glasses_share", 1.5),
        ("detail", 0),
        ("detail", 2),
        ("flow_images", 100),
        ("flow_interval", 4),
        ("restraint_weight", 1.0),
        ("colour_weight", 1.0),
        ("growth_weight", 1.0),
        ("look_weight", 1.0),
        ("softness", 2),
        ("prototypes", True),
        ("softness", -1),
    ],
)
def test_impossible_values_name_the_setting(name, value):
    with pytest.raises(ConfigError, match=name):
        config_of({name: value})


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ConfigError, match="method: unknown 'pix2pix'; known: lifespan"):
        config_of({"method": "pix2pix"})


def test_one_group_has_no_neutral_one():
    assert FitConfig(groups=("female",)).bundle_groups == ("female",)
    assert FitConfig().bundle_groups == ("female", "male", "neutral")
