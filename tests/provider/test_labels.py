"""By what is ours at an engine, whatever an image says of itself."""

from services.provider.drivers.docker.labels import Labels, Owner
from tests.agent.node import new_uid


def test_what_an_image_says_makes_no_setup_an_environment_nor_the_reverse() -> None:
    labels, uid = Labels("state"), new_uid()
    environment = labels.of(uid, Owner(tenant="t", node="n"))
    setup = labels.of_setup("key")
    for image in ({}, environment, setup):
        assert labels.uid({**image, **setup}) == ""
        assert labels.setup({**image, **setup}) == "key"
        assert labels.uid({**image, **environment}) == uid
        assert labels.setup({**image, **environment}) == ""
