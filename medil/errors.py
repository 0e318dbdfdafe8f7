"""The one exception for input that a person can mend."""


class InputError(ValueError):
    """Bad input, said in one clear sentence: what is wrong and what to do.

    The command line prints it and exits with 2; anything else that is raised is a bug.
    """
