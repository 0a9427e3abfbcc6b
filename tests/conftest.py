"""What every test stands on."""

from __future__ import annotations

from hypothesis import settings

# A machine that does other work too is slow now and then; that is no property of the code.
settings.register_profile("fastvla", deadline=None)
settings.load_profile("fastvla")
