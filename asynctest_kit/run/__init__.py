"""One run of the engine within a pytest session, whoever started pytest: ``atk run`` or ``pytest --atk``."""
