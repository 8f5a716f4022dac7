"""
>>> "no test"
'no test'
"""
