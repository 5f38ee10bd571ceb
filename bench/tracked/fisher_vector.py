"""The built-in Fisher-vector model on one photograph of 512 x 512 pixels, and the training of a small one."""

from time import process_time

from skimage import data

import fvlrp


class Explanation:
    """A forward pass, and the way back from it."""

    timer = staticmethod(process_time)

    def setup(self):
        self.clf = fvlrp.load("voc20").set_params(n_jobs=1)
        self.photo = data.astronaut()
        self.trace = self.clf.trace(self.photo)

    def time_trace(self):
        self.clf.trace(self.photo)

    def time_exact_trace(self):
        self.clf.trace(self.photo, dtype="float64")

    def time_descriptor(self):
        self.trace.explain("person", depth="descriptor")

    def time_bin(self):
        self.trace.explain("person", depth="bin")

    def time_gradient(self):
        self.trace.explain("person", depth="gradient")

    def time_every_class(self):
        self.trace.explain(self.clf.classes_, depth="bin")


class Training:
    """Eight photographs, a vocabulary of 32 words."""

    timer = staticmethod(process_time)

    def setup(self):
        names = ("astronaut", "chelsea", "coffee", "rocket", "camera", "gravel", "grass", "brick")
        self.photos = [getattr(data, name)() for name in names]
        self.labels = ["thing"] * 5 + ["surface"] * 3

    def time_fit(self):
        fvlrp.FisherVectorClassifier(n_components=32, max_height=240, random_state=0, n_jobs=1).fit(
            self.photos, self.labels
        )
