//! Builds the stand-in and prints the folder, for `LD_LIBRARY_PATH`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match kronfleet_cuda_standin::build() {
        Ok(folder) => {
            println!("{}", folder.display());
            ExitCode::SUCCESS
        }
        Err(missing) => {
            eprintln!("there is no stand-in: {missing}");
            ExitCode::FAILURE
        }
    }
}
