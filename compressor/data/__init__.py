"""Data, as every task shares it: samples and splits, labels and names, the transfer set, tables of predictions."""
