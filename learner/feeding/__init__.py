"""feeding"""
