"""A parsed command line comes in, one function for each verb.
Text on the screen and an exit code go out.
How anything is done is not known here: a verb calls the packages below, and prints.
"""
