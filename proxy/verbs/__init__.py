"""The verbs of the command that have more to do than to call one function.

One module a verb: `add_arguments(parser)` and `run(arguments) -> int`, an exit code of
`proxy.verbs.output`. A module imports what it needs when it runs, so that --help stays quick.
"""
