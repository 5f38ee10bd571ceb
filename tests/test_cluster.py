"""On a dask cluster of several processes everything is what it is on threads, to the last bit, whoever dies."""

import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from PIL import Image

from fvlrp import DiagonalGMM, FisherVectorClassifier, cli, evaluate
from fvlrp.fisher import training
from fvlrp.runtime import cluster

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as workers,
        distributed.Client(workers) as client,
    ):
        yield client


@pytest.fixture
def on_cluster(client):
    with joblib.parallel_config(backend="dask"):
        yield client


@pytest.fixture(scope="module")
def pieces(textures):
    return textures(4, seed=6, shape=(60, 64))


def learned(pieces, **parameters):
    return FisherVectorClassifier(n_components=4, n_pca=8, random_state=0, **parameters).fit(*pieces)


def test_without_a_cluster_threads_work():
    assert isinstance(cluster.workers(2), cluster.Threads)
    with joblib.parallel_config(backend="threading"):
        assert isinstance(cluster.workers(2), cluster.Threads)


def test_distributed_explanations_scores_and_flipping_are_bit_identical(plain, pieces, client):
    images, _ = pieces

    def all_of_it():
        maps = [ex.heatmap for ex in plain.explain_many(images, "brick", "gradient")]
        flipped = evaluate.pixel_flipping(plain.flipper(images[0], "brick"), images[0], maps[0], region=16, steps=4)
        return maps, plain.decision_function(images), flipped.curves

    here = all_of_it()
    with joblib.parallel_config(backend="dask"):
        assert isinstance(cluster.workers(None), cluster.Cluster)
        there = all_of_it()
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("parameters", [{}, {"mirror": True, "C": "auto"}])
def test_training_is_the_same_bits(pieces, client, parameters, monkeypatch):
    monkeypatch.setattr(training, "TILE", 5)
    here = learned(pieces, **parameters)
    with joblib.parallel_config(backend="dask"):
        there = learned(pieces, **parameters)
    for name in ("coef_", "intercept_", "C_"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    np.testing.assert_array_equal(here.gmm_.means_, there.gmm_.means_)


def test_the_gram_matrix_is_the_same_in_tiles(monkeypatch):
    codes = np.random.default_rng(0).random((23, 9000), dtype=np.float32)
    whole = training.gram_matrix(codes)
    np.testing.assert_allclose(whole, codes.astype(np.float64) @ codes.T.astype(np.float64), rtol=1e-5)
    monkeypatch.setattr(training, "TILE", 7)
    np.testing.assert_allclose(training.gram_matrix(codes), whole, rtol=1e-6)


def test_an_unusable_image_is_named(plain, pieces, on_cluster):
    images = [*pieces[0][:3], np.zeros((5, 5), np.float32)]
    with pytest.raises(ValueError, match=r"images\[3\]: "):
        list(plain.explain_many(images, "brick"))
    *_, last = plain.explain_many(images, "brick", errors="return")
    assert isinstance(last, ValueError)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_worker_changes_no_bit(plain, pieces, on_cluster):
    images = pieces[0] * 8
    killed = []

    def kill():
        time.sleep(0.5)
        process = next(iter(on_cluster.run(os.getpid).values()))
        os.kill(process, signal.SIGKILL)
        killed.append(process)

    expected = plain.decision_function(images)  # within joblib's context, but before anyone dies
    rows = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
    mixture = DiagonalGMM(8, random_state=0, tol=0, max_iter=40)
    with joblib.parallel_config(backend="threading"):
        means = mixture.fit(rows).means_
        maps = [ex.heatmap for ex in plain.explain_many(images, "brick")]
    for work, same in (
        (lambda: [ex.heatmap for ex in plain.explain_many(images, "brick")], maps),
        (lambda: mixture.fit(rows).means_, means),
    ):
        killer = threading.Thread(target=kill)
        killer.start()
        found = work()
        killer.join()
        np.testing.assert_array_equal(found, same)
    np.testing.assert_array_equal(plain.decision_function(images), expected)
    assert len(killed) == 2


def test_the_command_line_writes_the_same_files(plain, pieces, client, tmp_path):
    for i, image in enumerate(pieces[0]):
        Image.fromarray(np.rint(255 * np.asarray(image)).astype(np.uint8)).save(tmp_path / f"{i}.png")
    plain.save(tmp_path / "m.fvlrp")
    photographs = [str(tmp_path / f"{i}.png") for i in range(len(pieces[0]))]
    given = ["explain", *photographs, "--model", str(tmp_path / "m.fvlrp"), "--json"]
    assert cli.main([*given, "--out", str(tmp_path / "here")]) == 0
    assert cli.main([*given, "--out", str(tmp_path / "there"), "--scheduler", client.scheduler.address]) == 0
    names = sorted(path.name for path in (tmp_path / "here").glob("*.png"))
    assert len(names) == len(photographs)
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_an_unreachable_scheduler_is_refused_by_its_address(tmp_path):
    with pytest.raises(OSError, match="is not the address of a scheduler"), cluster.connected("nowhere://x"):
        pass
