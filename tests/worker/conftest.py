import hypothesis

# The same examples every time, no folder beside the tests, and no complaint about a busy machine
hypothesis.settings.register_profile("consort", max_examples=60, deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("consort")
