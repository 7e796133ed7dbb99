"""`genbench extractor`."""

from genbench.cli import main


def test_feature_networks_are_listed_and_a_wrong_subcommand_is_a_mistake(capsys):
    assert main(["extractor", "list"]) == 0
    assert "lenet-digits-v1" in capsys.readouterr().out
    assert main(["extractor", "tarin"]) == 2
    assert "extractor train" in capsys.readouterr().err
