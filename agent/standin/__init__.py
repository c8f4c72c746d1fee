"""Answers for environments in which no agent runs, with the agent's protocol.

One process a driver and node. It binds the socket of each environment that its driver has
activated, runs commands by the means of its engine (`runner.Runner`), and writes log and result on
the descriptors that it is given, as an agent does. So executor, and everything behind it, sees no
difference but in what is refused. Files are a real agent's business: requests about them are passed
on to one in a sandbox of the same environment, in which no command ever runs.
"""
