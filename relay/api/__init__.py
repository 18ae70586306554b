"""The routes under /v1: each parses its request, calls one function of `relay.endpoints`, and returns."""

from portal.lib.lazy import without_package

# Ninja takes one signal of Django's for tests, whose package brings `unittest` and much else along: 2 MiB.
with without_package("django.test"):
    import ninja  # noqa: F401
