// Folders that tests work in.
#pragma once

char *make_folder(void); // a new one; remove_folder takes the path back
// Removes a folder with all that is in it, following no links; one that is not there is fine. Fails the test
// when something stays.
void remove_folder_tree(const char *folder);
void remove_folder(char *owned); // the same, and frees the path

// A folder that all tests of a program share, between these two as set-up and tear-down of the group.
extern char *test_folder;
int make_test_folder(void **state);
int remove_test_folder(void **state);
const char *in_test_folder(const char *name); // a path in it, valid for four more calls
