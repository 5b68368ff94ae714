"""The digital link of the second paper: real codecs of media, 5G LDPC and QAM over counted complex uses."""
