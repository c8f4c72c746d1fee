"""Filters in the syntax of AIP-160, and orders in that of AIP-132, over protobuf messages.

    syntax   text to a tree, and back
    fields   which fields of a message may be named, and what each compares with
    filters  a tree, checked against the fields, as a function of a message
    order    `create_time desc, name`

A caller's expression costs a bounded amount of time, to read and to evaluate: its length,
depth and number of comparisons are limited, and nothing in it is a regular expression.
"""
