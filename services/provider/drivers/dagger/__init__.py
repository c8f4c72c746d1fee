"""The driver `dagger`: environments on a Dagger engine, by its stand-in (`engines.dagger`).

Nothing of Dagger is needed here.
"""
