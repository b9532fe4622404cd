// What tests leave behind on the disk.
#pragma once

// Removes a folder with all that is in it, following no links; one that is not there is fine. Fails the test
// when something stays.
void remove_folder_tree(const char *folder);
