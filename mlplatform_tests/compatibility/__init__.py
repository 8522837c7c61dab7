"""State that earlier code stored, and the tests that today's code still works with it.

`state_before_rooms.tar.xz` was made before the modules moved to the packages they are in now, and is never made anew:
its worth is that no code of today wrote it. `make_state` is the program it came from; a change that shall stay
compatible with what is stored today adds another archive beside it.
"""
