//! A contract's tests, once for each implementation.

/// The module that uses it has `memory()` and `postgres()`, which make what each test is given.
macro_rules! suite {
    // In modules, each test by the name of its function.
    ($($module:ident: $($test:ident)+;)+) => {
        mod over_memory {
            $(use super::$module;
            $(#[tokio::test] async fn $test() { $module::$test(super::memory().await).await; })+)+
        }
        mod over_postgres {
            $(use super::$module;
            $(#[tokio::test] async fn $test() { $module::$test(super::postgres().await).await; })+)+
        }
    };
    ($($test:ident)*) => {
        mod over_memory {
            $(#[tokio::test] async fn $test() { super::$test(super::memory().await).await; })*
        }
        mod over_postgres {
            $(#[tokio::test] async fn $test() { super::$test(super::postgres().await).await; })*
        }
    };
}
