def test_lumens_become_a_type_that_training_may_hide(histoloom, image_folder):
    imported = histoloom("import", "images", "--maps", "maps", "--tissue", "tissue.toml", "--out", "patches")
    assert imported.code == 0, imported.stderr
    done = histoloom("lumens", "patches", "--out", "outlined", "--contrast", 0, "--brightness", 0.7)
    assert done.code == 0, done.stderr
    assert "| 2 | lumen or glass |" in done.stdout
    assert "look at outlined/lumens.jpg" in done.stdout
    again = histoloom("lumens", "patches", "--out", "outlined", "--contrast", 0, "--brightness", 0.7)
    assert "outlined is up to date" in again.stdout
    assert "found by brightness and not by a person" in done.stderr
    assert "the mpp of 9 patches is unknown and was taken as 1.5 um per pixel" in done.stderr
    assert again.stderr == done.stderr
    (image_folder / "mine.toml").write_text(
        '[data]\ndataset = "outlined"\n[denoiser]\nwindow = 64\nhidden = ["lumens"]\n[autoencoder]\nsize = 32\n'
    )
    refused = histoloom("train", "mine.toml", "--out", "run")
    assert refused.code == 1
    assert "unknown tissue 'lumens'; known: stroma, gland, lumen or glass" in refused.stderr
