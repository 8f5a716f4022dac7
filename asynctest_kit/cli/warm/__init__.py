"""A warm start: a process that waits, with all imported that a run imports, for the next ``atk run``.

While ``atk up`` keeps a project's services, one such process waits for each folder that ``atk run`` is called in. The
next run finds it (:mod:`handover`), and becomes it where both are the same in all that a program can see of itself: the
interpreter and its flags, the environment, limits, control group, namespaces, and the files of all that is imported
(:mod:`spare`). Otherwise the run starts as ever, and leaves another that is like it.

What waits has imported this kit, its dependencies, pytest and the plugins that the last run from there had
(:mod:`recipe`), through pytest's own import hook, and nothing of the project. It serves one run, in a fork of itself
that it is the parent of, and each run leaves a new one: what a run does to its modules, no other one sees. It ends when
the services do.

Linux only: it takes pidfds and /proc to be exact.
"""
