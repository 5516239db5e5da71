//! What is in force on this replica, without secrets.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::error::Problem;
use super::query::Query;
use super::{Api, Setting};

pub async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Json<Value>, Problem> {
    let principal = api.principal(&headers, &mut query).await?;
    query.finish()?;
    if !principal.admin {
        return Err(Problem::forbidden("the settings are for admins and API keys"));
    }
    let one = |setting: &Setting| {
        json!({
            "part": setting.part,
            "key": setting.key,
            "value": setting.value,
            "secret": setting.value.is_none(),
            "source": setting.source,
            "default": setting.default,
            "help": setting.help,
        })
    };
    let settings: Vec<Value> = api.inner.settings.effective.iter().map(one).collect();
    Ok(Json(json!({"replica": api.inner.settings.replica, "settings": settings})))
}
